"""The `geoseg` group: commands by entry point, errors in one line, exit codes that a batch can trust."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback

import click

from geoseg.errors import GeosegError, Interrupted
from geoseg.plugins import load_plugin, plugins
from geoseg.version import VERSION

ORDER = (
    "run", "batch", "segment", "vectorize", "convert", "evaluate", "track", "monitor", "train", "suggest", "models", "recipe",
    "info",
)  # fmt: skip


class Commands(click.Group):
    """Commands of `geoseg.commands`: ours in the order of use, then those of other packages. A broken one stays listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        known = plugins("commands")
        return [name for name in ORDER if name in known] + sorted(set(known) - set(ORDER))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in plugins("commands"):
            return None
        try:
            command = load_plugin("commands", cmd_name)
        except GeosegError as error:
            return _broken(cmd_name, error)
        if not isinstance(command, click.Command):
            return _broken(cmd_name, GeosegError(f"{cmd_name} is no click command; tell the package that brings it"))
        return command


def _broken(name: str, error: GeosegError) -> click.Command:
    def fail() -> None:
        raise error

    return click.Command(name, callback=fail, help=f"BROKEN: {error}", short_help="(broken: run it to see why)")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="geoseg", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Large satellite and drone rasters into georeferenced masks and crop-field polygons.

    \b
    geoseg run scene.tif -o fields/      the whole way: mask, polygons, preview, record
    geoseg info scene.tif                what geoseg sees in a file, and which model fits
    """


def main() -> None:
    """Runs the command line and exits: 0 done, 1 an error, 2 wrong usage, 130/143 after Ctrl-C/SIGTERM.

    A batch also ends with 3, some scenes failed, or 4, all did.
    """
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.captureWarnings(True)
    if not debug:
        logging.getLogger("py.warnings").setLevel(logging.ERROR)
        for noisy in ("rasterio", "pyogrio", "distributed"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
    try:
        code = cli.main(arguments, prog_name="geoseg", standalone_mode=False) or 0
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.UsageError as error:
        error.show()
        code = 2
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        code = 128 + signal.SIGINT
    except Interrupted as error:
        click.echo(str(error), err=True)
        code = error.exit_code
    except GeosegError as error:
        if debug:
            traceback.print_exc()
        click.echo(f"geoseg: {error}", err=True)
        code = 1
    except BrokenPipeError:
        # Whoever reads our output has gone: not an error of ours, and nothing more to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        click.echo(
            f"geoseg: unexpected {type(error).__name__}: {error}; run again with --debug and report what it shows",
            err=True,
        )
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
