"""The command line: one file a command, found by entry points; modules here import click and nothing heavy."""
