"""The Lambda function: one SQS message, one superstep. Replace the graph and its state with yours.

Bucket, prefix and queue come from the environment, which `template.yaml` sets. Nothing is opened before the first
invocation; what is opened then serves all later ones.
"""

from s3_checkpoint.aws_lambda import sqs_handler
from s3_checkpoint.demo.graph import CENSUS, Census

handler = sqs_handler(CENSUS, Census)
