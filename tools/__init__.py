"""What only maintainers run: the ready detector built, checkpoints averaged, locks and licences written."""
