"""Listening day and night: sources, alarms and whom they are told."""
