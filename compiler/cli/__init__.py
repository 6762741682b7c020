"""The ``attnc`` command."""


def main() -> None:
    """Runs the command with the arguments of this process."""
    from attnc.cli.app import app

    app(prog_name="attnc")
