"""`broker completion`: the script that teaches a shell this command."""

from __future__ import annotations

import os

import click
from click.shell_completion import (
    BashComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

# Readline ends words at `:` and `@`, too, which names may have: it is told what it lacks of them.
BASH = r"""
%(complete_func)s() {
    local IFS=$'\n' line="${COMP_LINE:0:COMP_POINT}" word="$2" reply type value before
    COMPREPLY=()
    reply=$(env COMP_LINE="$line" %(complete_var)s=bash_complete "$1" 2>/dev/null) || return 0
    while IFS=',' read -r type value; do
        case $type in
            word) before="${value%%"$word"}" ;;
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                COMPREPLY+=("${value#"$before"}")
                if [[ $value == */ ]]; then compopt -o nospace; fi
                ;;
        esac
    done <<< "$reply"
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
COMPADD = "compadd -U -V unsorted -a completions"
# A directory is not the end of a path.
OPEN_ENDED = """compadd -U -V unsorted -- "${(@)completions:#*/}"
        compadd -U -V unsorted -S '' -- "${(@M)completions:#*/}\""""


@add_completion_class
class Bash(BashComplete):
    """Bash, of which the whole line is read: its own words are cut at colons."""

    source_template = BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one to be completed, and that."""
        line = os.environ.get("COMP_LINE")
        if line is None:
            return super().get_completion_args()
        words = split_arg_string(line)
        word = words.pop() if words and not line[-1:].isspace() else ""
        return words[1:], word

    def complete(self) -> str:
        """Return what is offered, behind the word that it is to replace."""
        told = super().complete()
        return (
            f"word,{self.get_completion_args()[1]}\n{told}" if "COMP_LINE" in os.environ else told
        )


@add_completion_class
class Zsh(ZshComplete):
    """Zsh, which puts no space behind a directory."""

    source_template = ZshComplete.source_template.replace(COMPADD, OPEN_ENDED)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a shell's completion script.

    Commands, options, and the names of sessions, nodes, profiles and a session's files.

    \b
    bash:  broker completion bash > ~/.local/share/bash-completion/completions/broker
    zsh:   broker completion zsh > "${fpath[1]}/_broker"
    fish:  broker completion fish > ~/.config/fish/completions/broker.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    root = ctx.find_root().command
    click.echo(kind(root, {}, "broker", "_BROKER_COMPLETE").source())
