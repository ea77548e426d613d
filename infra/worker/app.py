"""The Lambda function: one SQS message, one superstep, of the graph in `graph.py`.

Bucket, prefix and queue come from the environment, which `template.yaml` sets. Nothing is opened before the first
invocation; what is opened then serves all later ones.
"""

from graph import GRAPH, Survey

from s3_checkpoint.aws_lambda import sqs_handler

handler = sqs_handler(GRAPH, Survey)
