"""The `roomkit` command. Importing this loads nothing; `main` needs the [cli] extra and says so where it is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from roomkit.errors import RoomKitError, UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 well, 1 failed, 2 wrong use, 130 interrupted.

    Every mistake of the user's is one line on standard error that says what, why and the fix.
    """
    from roomkit.cli.environment import need, read_dotenv

    try:
        need("the roomkit command", "cli", "typer", "rich")
        read_dotenv()
        from roomkit.cli.app import run

        return run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone; there is nobody to tell.
        sys.stderr.close()
        return 1
    except RoomKitError as error:
        print(f"roomkit: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
