# Completions of keepalive for fish: save as keepalive.fish in ~/.config/fish/completions.

function __keepalive_names
    # -x, since fish 4, expands variables and `~`.
    set -l words (commandline -xpc 2>/dev/null; or commandline -opc)
    # The value of --socket on the command line; the last one if it is repeated.
    set -l socket
    for i in (seq 2 (count $words))
        if test $words[$i] = --socket; and set -q words[(math $i + 1)]
            set socket --socket $words[(math $i + 1)]
        else if string match -q -- '--socket=*' $words[$i]
            set socket $words[$i]
        end
    end
    $words[1] completions $argv[1] $socket 2>/dev/null
end

# The words after the program's name that are neither options nor their values.
function __keepalive_words
    set -l words (commandline -opc)
    set -l is_value no
    for word in $words[2..-1]
        if test $is_value = yes
            set is_value no
        else if contains -- $word @VALUED@
            set is_value yes
        else
            string match -q -- '-*' $word; or echo $word
        end
    end
end

function __keepalive_has_no_command
    set -l words (__keepalive_words)
    not set -q words[1]; and not contains -- -- (commandline -opc)
end

# Whether the command is $argv[1], followed by $argv[2] operands.
function __keepalive_has_command
    set -l words (__keepalive_words)
    contains -- -- (commandline -opc); and return 1
    test "$words[1]" = $argv[1]; or return 1
    not set -q argv[2]; or test $argv[2] = any; or test (count $words) -eq (math $argv[2] + 1)
end

complete -c keepalive -f
complete -c keepalive -n 'contains -- -- (commandline -opc)' -x -a '(__fish_complete_subcommand --fcs-skip=2)'
@LINES@
