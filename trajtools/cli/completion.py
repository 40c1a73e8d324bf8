"""Completion in bash of words and file names with an equals sign, such as eta=0.1.h5, at which bash breaks words."""

from __future__ import annotations

import os

from click.shell_completion import BashComplete, add_completion_class, split_arg_string

# As in click, but with the line and not its words, and with the names of files where a word is broken.
SOURCE = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion type value head
    response=$(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete $1)
    for completion in $response; do
        IFS=',' read type value <<< "$completion"
        if [[ $type == 'dir' ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            COMPREPLY=($(compgen -f -- "$value"))
            if [[ "${COMPREPLY[*]}" == *=* && $COMP_WORDBREAKS == *=* ]]; then
                COMPREPLY=($(printf '%%q\\n' "${COMPREPLY[@]}"))
                head="${value%%"${value##*=}"}"
                COMPREPLY=("${COMPREPLY[@]#"$(printf '%%q' "$head")"}")
                compopt -o filenames -o noquote
            else
                COMPREPLY=()
                compopt -o default
            fi
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=($value)
        fi
    done
    return 0
}

%(complete_func)s_setup() {
    complete -o nosort -F %(complete_func)s %(prog_name)s
}

%(complete_func)s_setup;
"""


@add_completion_class
class LineComplete(BashComplete):
    """Takes the words from the line, and not from bash."""

    source_template = SOURCE

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor, and the one that is being typed."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        at_new_word = line[-1:].isspace() and not line.endswith("\\ ")
        return (words[1:], "") if at_new_word or len(words) < 2 else (words[1:-1], words[-1])
