#compdef keepalive
# What zsh completes after `keepalive`: a file named _keepalive in one of the directories of $fpath.

_keepalive_names() {
  local -a names
  local text socket
  # What --socket says on the line, the last of several.
  local -i last=${words[(I)--socket(|=*)]}
  if (( last )); then
    text=${words[last]#--socket}
    [[ -n $text ]] && text=${text#=} || text=${words[last + 1]}
  fi
  # As the shell would read it, but for what would run something.
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
