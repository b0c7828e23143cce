"""The listening service: sources, alarms and their recipients, the page."""
