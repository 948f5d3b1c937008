#compdef keepalive
# Completions of keepalive for zsh: save as _keepalive in a directory of $fpath.

_keepalive_names() {
  local -a names
  local text socket
  # The value of --socket on the command line; the last one if it is repeated.
  local -i last=${words[(I)--socket(|=*)]}
  if (( last )); then
    text=${words[last]#--socket}
    [[ -n $text ]] && text=${text#=} || text=${words[last + 1]}
  fi
  # Expands variables and quotes as the shell does. Text that could run a command is ignored.
  [[ $text == *[\`\;\&\|\<\>\(\)\{\}\[]* ]] || eval "socket=$text" 2>/dev/null
  names=(${(f)"$($_keepalive_program completions $1 ${socket:+--socket} ${socket:+$socket} 2>/dev/null)"})
  compadd -a names
}

_keepalive() {
  local context state state_descr line _keepalive_program=$words[1]
  typeset -A opt_args
  local -i dashes=${words[(ie)--]}
  if (( dashes < CURRENT )); then
    shift $dashes words
    (( CURRENT -= dashes ))
    _normal
    return
  fi
  _arguments -s @OPTIONS@ '1: :->command' '*:: :->rest' && return
  case $state in
    command)
      local -a commands
      commands=(
@COMMANDS@
      )
      _describe command commands
      ;;
    rest)
      case $words[1] in
@CASES@
      esac
      ;;
  esac
}

if [[ $funcstack[1] == _keepalive ]]; then
  _keepalive "$@"
else
  compdef _keepalive keepalive
fi
