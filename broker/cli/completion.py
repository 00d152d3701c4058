"""`broker completion`: the script that teaches a shell this command."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a shell's completion script.

    \b
    bash:  broker completion bash > ~/.local/share/bash-completion/completions/broker
    zsh:   broker completion zsh > "${fpath[1]}/_broker"
    fish:  broker completion fish > ~/.config/fish/completions/broker.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    root = ctx.find_root().command
    click.echo(kind(root, {}, "broker", "_BROKER_COMPLETE").source())
