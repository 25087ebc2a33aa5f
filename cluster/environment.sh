# What every shell on a machine of the cluster begins with: the cluster files source it from ~/.bashrc.
export PATH="$HOME/supermasks/.venv/bin:$PATH"
# Every process shows the token that the cluster files bring to ~/.ray/auth_token, or is refused.
export RAY_AUTH_MODE=token
export RAY_USAGE_STATS_ENABLED=0
