"""`from modules.scripts import run_script`: the reference's selectable scripts, by title."""

from overpaint.contract.run_script import run_script

__all__ = ["run_script"]
