"""Logins and certificates: Basic, tokens of a service, TLS with an authority of its own."""

import json
import stat

from servers import Authority, Registry, TokenService


def basic(bed):
    """A registry with a password file, and the file that skopeo login writes."""
    check = bed.checks
    digest = bed.make("s", "web:1.0.0", 100_000, 6_000_000, 300)
    users = bed.path("htpasswd")
    users.write_text(bed.command("htpasswd", "-nbB", "bob", "pass word").out)
    auth = {"htpasswd": {"realm": "aos", "path": str(users)}}
    with Registry(bed.path("basic"), auth=auth) as registry:
        remote = f"{registry.host}/team/web:1.0.0"
        login = bed.command("skopeo", "login", "--tls-verify=false", "--authfile", "auth.json", "-u", "bob",
                            "-p", "pass word", registry.host)
        check.succeeds("skopeo login", login)
        check.refused("push without a login", bed.aos("push", "s", "web:1.0.0", remote), "no credentials", "docker login")
        check.succeeds("push with what skopeo login wrote", bed.aos("--config", "auth.json", "push", "s", "web:1.0.0", remote),
                       "uploaded")
        check.succeeds("pull with it", bed.aos("--config", "auth.json", "pull", "pb", remote), digest)
        check.refused("pull without it", bed.aos("pull", "pb", remote), "no credentials")
        bed.path("wrong.json").write_text(json.dumps({"auths": {registry.host: {"username": "bob", "password": "no"}}}))
        wrong = bed.aos("--config", "wrong.json", "pull", "pb", remote)
        check.refused("a wrong password", wrong, "not accepted")
        bed.path("helper.json").write_text(json.dumps({"credHelpers": {registry.host: "evil"}}))
        program = bed.path("docker-credential-evil")
        program.write_text(f"#!/bin/sh\ntouch {bed.path('executed')}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        helper = bed.aos("--config", "helper.json", "pull", "pb", remote)
        check.refused("a credential helper is named", helper, "docker-credential-evil", "not executed")
        check.check("and not run", not bed.path("executed").exists())


def tokens(bed):
    """A registry that wants tokens of a service."""
    check = bed.checks
    digest = bed.make("s", "web:1.0.0", 100_000, 6_000_000, 300)
    with TokenService(bed.path("service")) as service, \
            Registry(bed.path("tokens"), auth=service.auth()) as registry:
        remote = f"{registry.host}/team/web:1.0.0"
        check.refused("no credentials for the token service", bed.aos("push", "s", "web:1.0.0", remote), "no credentials")
        entry = {"username": service.USER, "password": service.PASSWORD}
        bed.path("user.json").write_text(json.dumps({"auths": {registry.host: entry}}))
        asked = len(service.asked)
        check.succeeds("push with a token", bed.aos("--config", "user.json", "push", "s", "web:1.0.0", remote), "uploaded")
        check.check("one token for the whole push", len(service.asked) == asked + 1, service.asked[asked:])
        scopes = service.asked[-1][1].get("scope")
        check.check("for this repository only", scopes == ["repository:team/web:pull,push"], scopes)
        check.succeeds("pull with a token", bed.aos("--config", "user.json", "pull", "pt", remote), digest)
        other = f"{registry.host}/other/web:1.0.0"
        check.succeeds("mount needs a token for both repositories",
                       bed.aos("--config", "user.json", "push", "s", "web:1.0.0", other), "uploaded: 0")
        scopes = service.asked[-1][1].get("scope")
        check.check("and asks for both", scopes == ["repository:other/web:pull,push", "repository:team/web:pull"], scopes)
        bed.path("refresh.json").write_text(json.dumps({"auths": {registry.host: {"identitytoken": service.REFRESH}}}))
        check.succeeds("pull with a refresh token", bed.aos("--config", "refresh.json", "pull", "pr", remote), digest)
        check.check("it was exchanged by POST", service.asked[-1][0] == "POST", service.asked[-1])
        bed.path("bad.json").write_text(json.dumps({"auths": {registry.host: {"identitytoken": "old"}}}))
        check.refused("a refresh token that ended", bed.aos("--config", "bad.json", "pull", "px", remote), "not accepted")


def tls(bed):
    """TLS by an authority of its own, with and without a client's certificate."""
    check = bed.checks
    digest = bed.make("s", "web:1.0.0", 100_000, 6_000_000, 300)
    authority = Authority(bed.path("authority"))
    key, certificate = authority.sign("localhost", "serverAuth")
    client_key, client_certificate = authority.sign("client", "clientAuth")
    settings = {"tls": {"certificate": str(certificate), "key": str(key)}}
    with Registry(bed.path("tls"), http=settings) as registry:
        remote = f"{registry.host}/team/web:1.0.0"
        certs = bed.path("certs.d")
        own = certs / registry.host
        own.mkdir(parents=True)
        (own / "ca.crt").write_bytes(Authority(bed.path("another"), "another").certificate.read_bytes())
        unknown = bed.aos("--certs", certs, "push", "s", "web:1.0.0", remote)
        check.refused("an authority that is not known", unknown, "certificate", "UnknownIssuer")
        (own / "ca.crt").write_bytes(authority.certificate.read_bytes())
        check.succeeds("push by TLS", bed.aos("--certs", certs, "push", "s", "web:1.0.0", remote), "uploaded")
        check.succeeds("pull by TLS", bed.aos("--certs", certs, "pull", "pl", remote), digest)
        seen = bed.skopeo("inspect", "--cert-dir", own, f"docker://{remote}")
        check.succeeds("skopeo inspect by TLS", seen, digest)
        named = bed.path("certs.d") / f"127.0.0.1:{registry.port}"
        named.mkdir()
        (named / "ca.crt").write_bytes(authority.certificate.read_bytes())
        wrong = bed.aos("--certs", certs, "pull", "pl", f"127.0.0.1:{registry.port}/team/web:1.0.0")
        check.refused("a name that is not in the certificate", wrong, "not valid for name")
    settings["tls"]["clientcas"] = [str(authority.certificate)]
    with Registry(bed.path("mutual"), http=settings) as registry:
        remote = f"{registry.host}/team/web:1.0.0"
        own = certs / registry.host
        own.mkdir()
        (own / "ca.crt").write_bytes(authority.certificate.read_bytes())
        check.refused("no client's certificate", bed.aos("--certs", certs, "push", "s", "web:1.0.0", remote), registry.host)
        (own / "me.cert").write_bytes(client_certificate.read_bytes())
        (own / "me.key").write_bytes(client_key.read_bytes())
        check.succeeds("a client's certificate", bed.aos("--certs", certs, "push", "s", "web:1.0.0", remote), "uploaded")
