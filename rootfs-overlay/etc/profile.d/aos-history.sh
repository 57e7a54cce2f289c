# Keys typed at a prompt are not kept: no history file for the shell, the pager or Python.
export HISTFILE=
export HISTCONTROL=ignoreboth
export LESSHISTFILE=-
export PYTHON_HISTORY=/dev/null
