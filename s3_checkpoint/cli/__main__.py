"""`python -m s3_checkpoint.cli`: the same as the `s3-checkpoint` command."""

from s3_checkpoint.cli import main

if __name__ == "__main__":
    main()
