"""The command line: all commands, and the code that a program exits with.

Everything heavy is imported when a command runs, so that `--help` answers at once.
"""

import signal
import sys
import traceback

from cyclopts import App, CycloptsError, Group

from flows.commands import govern, make, operate, use
from graftwork.errors import GraftworkError, Paused, RecipeError

HELP = """Fine-tuning pipelines that a team can leave alone.

A recipe (one YAML file) names data, a pretrained checkpoint, and the stages of training. Start with
`graftwork init`, look with `graftwork plan`, then `graftwork run`; run it again whenever data has landed.
Any command takes `--debug`, which shows the traceback behind an error.

Exit codes: 0 done (whatever the verdict), 1 our bug, 2 recipe or usage, 3 data, 4 checkpoint, 5 training,
6 registry or promotion refused, 7 a service is away, 8 audit or doctor found something, 75 paused: run again to go on.
"""

# In the order of `--help`.
COMMANDS = {
    "Make a model": (
        make.init,
        make.choose,
        make.families,
        make.convert,
        make.train_vectors,
        make.import_vectors,
        make.plan,
        make.run,
        make.lock,
        make.stages,
        make.schema,
    ),
    "Leave it alone": (operate.up, operate.deploy, operate.doctor, operate.prune, operate.land),
    "Use it": (use.predict, use.export, use.extract, use.generate, use.retrieval, use.models),
    "Answer for it": (
        govern.history,
        govern.audit,
        govern.approvals,
        govern.approve,
        govern.reject,
        govern.adopt,
        govern.promote,
        govern.rollback,
    ),
}

app = App(
    name="graftwork",
    help=HELP,
    help_format="markdown",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # it has an exit code of its own, 75
)
for place, (heading, commands) in enumerate(COMMANDS.items()):
    group = Group(heading, sort_key=place)
    for command in commands:
        app.command(command, group=group)


def main(arguments: list[str] | None = None) -> None:
    """The console script: runs a command and exits with the code of its kind."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(_exit_code([argument for argument in given if argument != "--debug"], debug))


def _exit_code(arguments: list[str], debug: bool) -> int:
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _complain(f"{error}\nTry graftwork --help.", RecipeError.exit_code, debug)
    except GraftworkError as error:
        return _complain(f"{type(error).__name__}: {error}", error.exit_code, debug)
    except KeyboardInterrupt:
        return _complain("paused: the same command goes on where it stopped", Paused.exit_code, debug)
    except Exception as error:  # noqa: BLE001 - the last place where a bug of ours can be told from a user's mistake
        told = f"{type(error).__name__}: {error}"
        return _complain(f"a bug of ours: {told}\nRun again with --debug for the traceback.", 1, debug)
    return 0


def _complain(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stderr.write(message.rstrip() + "\n")
    return code
