# Completions of keepalive for bash: source <(keepalive completions bash)

# These use the local variables of _keepalive.
_keepalive_words() { COMPREPLY=($(compgen -W "$1" -- "$current")); }
_keepalive_files() { compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$current")); }
_keepalive_directories() { compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- "$current")); }
_keepalive_users() { COMPREPLY=($(compgen -u -- "$current")); }
_keepalive_names() {
    _keepalive_words "$("${COMP_WORDS[0]}" completions "$1" ${socket:+--socket "$socket"} 2>/dev/null)"
}

# Sets socket to the value of --socket on the command line; the last one if it is repeated.
_keepalive_find_socket() {
    local i text=
    for ((i = 1; i < ${#COMP_WORDS[@]}; i++)); do
        case ${COMP_WORDS[i]} in
        --) break ;;
        # bash splits `--option=value` into three words.
        --socket) text=${COMP_WORDS[i + 1]}; [[ $text == = ]] && text=${COMP_WORDS[i + 2]} ;;
        esac
    done
    # Expands variables and quotes as the shell does. Text that could run a command is ignored.
    socket=
    [[ $text == *[\`\;\&\|\<\>\(\)\{\}\[]* ]] || eval "socket=$text" 2>/dev/null
}

# Completes the value of the option $2 of the command $1; fails if it takes none.
_keepalive_value() {
    case "$1 $2" in
@VALUES@
    *) return 1 ;;
    esac
    return 0
}

_keepalive() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local command= operands=0 word i socket
    _keepalive_find_socket
    # bash splits `--option=value` into three words.
    if [[ $current == = ]]; then
        current=
    elif [[ $previous == = ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi

    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == -- ]]; then
            if ((i + 1 == COMP_CWORD)); then COMPREPLY=($(compgen -c -- "$current")); else _keepalive_files; fi
            return
        elif [[ $word == = ]]; then
            ((i++))
        elif [[ $word == -* ]]; then
            if [[ ${COMP_WORDS[i + 1]} != = ]] && _keepalive_value "$command" "$word"; then
                ((i++))
            fi
        elif [[ -z $command ]]; then
            command=$word
        else
            ((operands++))
        fi
    done

    COMPREPLY=()
    if [[ $previous == -* ]] && _keepalive_value "$command" "$previous"; then
        return
    fi
    if [[ $current == -* ]]; then
        case $command in
@OPTIONS@
        esac
    else
        case "$command $operands" in
@OPERANDS@
        esac
    fi
}

complete -F _keepalive keepalive
