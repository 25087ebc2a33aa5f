# Let the workers of a cluster on AWS start from the machine image of this head. The cluster files
# call this script before Ray starts on the head.
#
# The cluster files name an image by a public parameter: `resolve:ssm:NAME`. AWS looks the parameter
# up when a machine is requested, and needs the caller's permission for it (ssm:GetParameters). You
# request the head, but the head requests the workers. The role that Ray gives to the head may use
# EC2 and S3, but may not read parameters. So this script replaces the parameter by the image from
# which AWS started the head. All workers then have this image, even if AWS publishes a newer one.
set -euo pipefail
config=~/ray_bootstrap_config.yaml
grep -q 'resolve:ssm:' "$config" || exit 0
about=http://169.254.169.254/latest  # every machine on AWS answers here, about itself only
token=$(curl -fsS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$about/api/token")
image=$(curl -fsS -H "X-aws-ec2-metadata-token: $token" "$about/meta-data/ami-id")
if ! [[ $image =~ ^ami-[0-9a-f]+$ ]]; then
  echo "error: the image of the head must be ami-…, got $image: write ImageId: ami-… into the cluster file" >&2
  exit 1
fi
sed -i "s|resolve:ssm:[^\"' ]*|$image|g" "$config"
