"""Pictures and the page of mistakes."""
