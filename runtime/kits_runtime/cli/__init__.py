"""The commands; only they touch the console and end the process."""
