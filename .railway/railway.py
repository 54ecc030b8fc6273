"""Seline on Railway as code: `railway config plan` shows it, `railway config apply` makes it.

One service with one volume, and the bucket that the copies go to: the service refers to it by five
variables, and needs no other setting. Set SELINE_ADMIN_TOKEN in the dashboard or with
`railway variables`, never in a file.
"""

from railway_sdk import bucket, define_railway, github, preserve, project, service, volume

# Where older deployments have their data.
MOUNT = "/app/server/data"
LOCK_WAIT_S = 300
DRAINING_S = 15
BUCKET_VARIABLES = ("BUCKET", "ENDPOINT", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION")


@define_railway
def main(ctx=None):  # noqa: ARG001  # the SDK passes it
    """Return the project."""
    data = volume("seline-data", sizeMB=500)
    copies = bucket("seline-exports")
    seline = service(
        "seline",
        source=github("your-name/your-fork-of-seline"),
        build={"builder": "DOCKERFILE", "dockerfilePath": "Dockerfile"},
        healthcheck="/readyz",
        # Longer than the new container may wait for the old one to release the volume.
        healthcheckTimeout=LOCK_WAIT_S + 60,
        deploy={
            # Without a number, SIGKILL follows SIGTERM at once.
            "drainingSeconds": DRAINING_S,
            "restartPolicyType": "ON_FAILURE",
            "restartPolicyMaxRetries": 10,
        },
        replicas=1,
        volumeMounts={MOUNT: data},
        env={
            "SELINE_ADMIN_TOKEN": preserve(),
            "SELINE_STORAGE__LOCK_WAIT_S": str(LOCK_WAIT_S),
            **{name: copies.env[name] for name in BUCKET_VARIABLES},
        },
    )
    return project("seline", resources=[data, copies, seline])
