"""The commands: what each takes. What one does is in ``attnc.cli``, imported when it runs."""
