"""The `attnc` command."""
