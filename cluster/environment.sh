# Settings of every shell on a machine of the cluster. The cluster files source this file from
# ~/.bashrc.
export PATH="$HOME/supermasks/.venv/bin:$PATH"
# Ray refuses every process that does not present the token in ~/.ray/auth_token. The cluster files
# copy this token to each machine.
export RAY_AUTH_MODE=token
export RAY_USAGE_STATS_ENABLED=0
