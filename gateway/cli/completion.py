"""`gateway completion`: what a shell needs to complete commands, options and the names of services."""

from typing import Final

import click
from click.shell_completion import get_completion_class

from gateway.cli.exits import OK

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_GATEWAY_COMPLETE"

_CALLED: Final = '    _gateway_completion "$@"'
"""How click's script of zsh completes as it is loaded from a folder of functions. The script itself is that
function from then on, and only registers what completes: the second Tab of each shell would do nothing.
"""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print the completion script of a shell, to be read by it or put where it looks.

    \b
    bash: gateway completion bash > ~/.local/share/bash-completion/completions/gateway
    zsh:  gateway completion zsh > ~/.zfunc/_gateway     (with fpath+=~/.zfunc before compinit)
    fish: gateway completion fish > ~/.config/fish/completions/gateway.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    # click's script of bash asks for bash 4.4; its own check of that is left to the shell that reads it.
    script = kind(context.find_root().command, {}, "gateway", VARIABLE).source()
    click.echo(script.replace(_CALLED, f"    compdef _gateway_completion gateway\n{_CALLED}"))
    return OK


COMMANDS: Final = (completion,)
