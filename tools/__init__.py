"""What only maintainers run: the ready detector built, checkpoints averaged."""
