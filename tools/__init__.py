"""What only maintainers run: the built-in detector built, checkpoints averaged, locks and licences written."""
