"""A gate in front of a moto server: it lets a request through only if the caller's policies allow it, as AWS would.

moto's own enforcement (checked as well, behind this gate) looks at users, signatures, actions and object ARNs. It does
not evaluate conditions (`s3:prefix`, `s3:if-none-match`, `aws:SecureTransport`), nor bucket policies from
CloudFormation, nor the right to list that decides between 404 and 403, nor the second right that a copy needs, nor the
single keys of a batch delete (it asks for `s3:DeleteObject` on the bucket), nor the ARN of a queue. The gate does.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from tests.infra.iam_rules import Policy, is_allowed

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ACCOUNT = "123456789012"
"""moto's own account."""


class Question(NamedTuple):
    """What IAM is asked about a request; a request may raise several."""

    action: str
    resource: str
    context: dict[str, str]


class PolicyGate:
    """WSGI middleware. Callers it does not know (administrators) pass."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self.forget()

    def forget(self) -> None:
        """Nobody is known, no bucket has a policy, nothing was refused."""
        self.identities: dict[str, list[Policy]] = {}
        """Policies by access key id."""
        self.bucket_policies: dict[str, Policy] = {}
        self.tls = True
        """Whether requests count as encrypted; the test server itself speaks plain HTTP."""
        self.denied: list[str] = []
        """The actions refused by this gate, in order."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Asks, and passes the request on or refuses it."""
        key, service = _credential(environ.get("HTTP_AUTHORIZATION", ""))
        if key not in self.identities or service not in ("s3", "sqs"):
            return self._app(environ, start_response)
        if service == "sqs":
            refused = self._ask(key, [_sqs_question(environ)])
            return _refuse(environ, start_response, refused) if refused else self._app(environ, start_response)
        bucket, _, name = unquote(environ["PATH_INFO"].encode("latin-1").decode()).lstrip("/").partition("/")
        query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        if environ["REQUEST_METHOD"] == "POST" and "delete" in query:
            return self._delete_some(environ, start_response, key, bucket)
        refused = self._ask(key, _s3_questions(environ, bucket, name, query))
        if refused:
            return _refuse(environ, start_response, refused)
        if environ["REQUEST_METHOD"] in ("GET", "HEAD") and name:
            return self._hide_absence(environ, start_response, key, bucket, name)
        return self._app(environ, start_response)

    def _ask(self, key: str, questions: Iterable[Question]) -> Question | None:
        """The first question answered with no, if one is."""
        for question in questions:
            action, resource, context = question
            bucket = resource.removeprefix("arn:aws:s3:::").partition("/")[0]
            everywhere = {"aws:SecureTransport": str(self.tls).lower(), "aws:ResourceAccount": ACCOUNT}
            policies = [self.bucket_policies[bucket]] if bucket in self.bucket_policies else []
            if not is_allowed(
                action, resource, {**everywhere, **context}, identity=self.identities[key], on_resource=policies
            ):
                self.denied.append(action)
                return question
        return None

    def _hide_absence(
        self, environ: WSGIEnvironment, start_response: StartResponse, key: str, bucket: str, name: str
    ) -> Iterable[bytes]:
        """An object that is not there is a 404 only for those who may list it: `s3:prefix` is then its key."""
        status, headers, chunks = _run(self._app, environ)
        question = Question("s3:ListBucket", f"arn:aws:s3:::{bucket}", {"s3:prefix": name})
        if status.startswith("404") and self._ask(key, [question]):
            return _refuse(environ, start_response, question)
        start_response(status, headers)
        return chunks

    def _delete_some(
        self, environ: WSGIEnvironment, start_response: StartResponse, key: str, bucket: str
    ) -> Iterable[bytes]:
        """A batch delete is decided key by key; what is refused is in the answer as an error of that key."""
        space = {"s3": "http://s3.amazonaws.com/doc/2006-03-01/"}
        batch = ElementTree.fromstring(_body(environ))
        refused = []
        for item in batch.findall("s3:Object", space):
            name = item.findtext("s3:Key", "", space)
            if self._ask(key, [Question("s3:DeleteObject", f"arn:aws:s3:::{bucket}/{name}", {})]):
                refused.append(name)
                batch.remove(item)
        answer = b"<DeleteResult></DeleteResult>"
        if batch.findall("s3:Object", space):
            ElementTree.register_namespace("", space["s3"])
            shorter = ElementTree.tostring(batch)
            environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(shorter), str(len(shorter))
            status, headers, chunks = _run(self._app, environ)
            if not refused or not status.startswith("200"):
                start_response(status, headers)
                return chunks
            answer = b"".join(chunks)
        errors = "".join(
            f"<Error><Key>{escape(name)}</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            for name in refused
        )
        whole = answer.replace(b"</DeleteResult>", errors.encode() + b"</DeleteResult>")
        start_response("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(whole)))])
        return [whole]


def _credential(authorization: str) -> tuple[str, str]:
    """Access key id and service of a signed request."""
    match = re.search(r"Credential=([^/]+)/[^/]+/[^/]+/([^/]+)/", authorization)
    return (match[1], match[2]) if match else ("", "")


def _s3_questions(environ: WSGIEnvironment, bucket: str, name: str, query: dict[str, list[str]]) -> list[Question]:
    bucket_arn, method = f"arn:aws:s3:::{bucket}", environ["REQUEST_METHOD"]
    if not name:
        context = {
            f"s3:{option}": query[option][0] for option in ("prefix", "delimiter", "max-keys") if option in query
        }
        return [Question("s3:ListBucket" if method in ("GET", "HEAD") else f"s3:{method}Bucket", bucket_arn, context)]
    arn = f"{bucket_arn}/{name}"
    if method in ("GET", "HEAD"):
        return [Question("s3:GetObject", arn, {})]
    if method == "DELETE":
        return [Question("s3:DeleteObject", arn, {})]
    headers = {"s3:if-none-match": "HTTP_IF_NONE_MATCH", "s3:if-match": "HTTP_IF_MATCH"}
    context = {condition: environ[header] for condition, header in headers.items() if header in environ}
    questions = [Question("s3:PutObject", arn, {**context, "s3:ObjectCreationOperation": "true"})]
    if "HTTP_X_AMZ_TAGGING" in environ:
        questions.append(Question("s3:PutObjectTagging", arn, {}))
    if "HTTP_X_AMZ_COPY_SOURCE" in environ:
        source = unquote(environ["HTTP_X_AMZ_COPY_SOURCE"]).lstrip("/")
        questions.append(Question("s3:GetObject", f"arn:aws:s3:::{source}", {}))
    return questions


def _body(environ: WSGIEnvironment) -> bytes:
    """The request's body, which the app can read once more."""
    body: bytes = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _sqs_question(environ: WSGIEnvironment) -> Question:
    operation = environ["HTTP_X_AMZ_TARGET"].partition(".")[2].removesuffix("Batch")
    queue = json.loads(_body(environ)).get("QueueUrl", "").rpartition("/")[2]
    return Question(f"sqs:{operation}", f"arn:aws:sqs:us-east-1:{ACCOUNT}:{queue}", {})


def _run(app: WSGIApplication, environ: WSGIEnvironment) -> tuple[str, list[tuple[str, str]], list[bytes]]:
    """The app's whole answer."""
    answered: list[tuple[str, list[tuple[str, str]]]] = []

    def start(status: str, headers: list[tuple[str, str]], _: object = None) -> Callable[[bytes], object]:
        answered.append((status, headers))
        return lambda chunk: None

    chunks = list(app(environ, start))
    return *answered[-1], chunks


def _refuse(environ: WSGIEnvironment, start_response: StartResponse, question: Question) -> Iterable[bytes]:
    message = f"User is not authorized to perform: {question.action} on resource: {question.resource}"
    body = f"<Error><Code>AccessDenied</Code><Message>{message}</Message></Error>".encode()
    if environ.get("HTTP_X_AMZ_TARGET"):
        body = json.dumps({"__type": "com.amazonaws.sqs#AccessDeniedException", "message": message}).encode()
    start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
