"""`python -m s3_checkpoint`: the same as the command `s3-checkpoint`, for the interpreter that is named."""

from s3_checkpoint.cli import main

if __name__ == "__main__":
    main()
