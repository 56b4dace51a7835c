"""`irlstack identity`: the probing.txt of RFC 9511, written and looked at."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import irlstack as irl
from irlstack.identity import Identity, check
from tests.conftest import Command

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = (
    "# comment\r\n\r\nCanonical: https://example.net/.well-known/probing.txt\r\nContact: mailto:lab@example.net\r\n"
    "contact: https://example.net/contact\r\nExpires: 2026-06-30T18:37:07z\r\nPreferred-Languages: en, es-419\r\n"
    "Acknowledgments: https://example.net/thanks\r\nDescription: This is a one-line description.\r\n"
)


def test_it_has_the_fields_of_the_rfc_and_passes_its_own_check() -> None:
    identity = Identity(
        contact="lab@example.net",
        description="We count web servers.",
        opt_out="write to us",
        canonical="https://example.net/.well-known/probing.txt",
        languages="en, de",
    )
    text = identity.text(NOW)
    assert text.splitlines()[1:] == [
        "Canonical: https://example.net/.well-known/probing.txt",
        "Contact: mailto:lab@example.net",
        "Expires: 2026-06-30T00:00:00Z",
        "Preferred-Languages: en, de",
        "Description: We count web servers. To opt out: write to us",
    ]
    assert check(text, NOW) == ([], [])


def test_a_good_file_is_called_good_however_it_is_spelt() -> None:
    assert check(GOOD, NOW) == ([], [])


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("Contact: mailto:lab@example.net\r\ncontact: https://example.net/contact\r\n", "", "no Contact"),
        ("mailto:lab@example.net", "lab@example.net", "'lab@example.net' is no URI"),
        ("https://example.net/contact", "http://example.net/contact", "has to begin with https://"),
        ("Canonical: https:", "Canonical: http:", "has to begin with https://"),
        ("Canonical: https:", "Canonical:  https:", "is no URI, as section 2.5.2"),
        ("mailto:lab@example.net", "mailto:lab example@example.net", "is no URI, as section 2.5.3"),
        ("mailto:lab@example.net", "mailto:100%@example.net", "is no URI"),
        ("Expires: 2026-06-30T18:37:07z\r\n", "", "no Expires"),
        ("2026-06-30T18:37:07z", "30 June", "no time of RFC 3339"),
        ("2026-06-30T18:37:07z", "2026-06-30T18:37:07", "no time of RFC 3339"),
        ("2026-06-30T18:37:07z", "20260630T183707Z", "no time of RFC 3339"),
        ("2026-06-30T18:37:07z", "2026-06-31T18:37:07Z", "no time of RFC 3339"),
        ("2026-06-30T18:37:07z", "2025-12-31T23:59:59Z", "expired on 2025-12-31"),
        ("en, es-419", "en, english please", "no language tag"),
        ("Preferred-Languages: en", "Preferred-Languages: de\r\nPreferred-Languages: en", "there 2 times"),
        ("Contact: mailto", "Contact:mailto", "Line 4 is no 'Name: value'"),
        ("# comment", "comment", "Line 1"),
        ("# comment", " # comment", "Line 1"),
        ("Contact: mailto", "Contact:\tmailto", "Line 4 is no 'Name: value'"),
        ("one-line description", "one-line\x0bdescription", "Line 9 is no 'Name: value'"),
        ("description.\r\n", "description.", "last line has no end"),
    ],
)
def test_each_fault_is_named(before: str, after: str, said: str) -> None:
    assert before in GOOD
    wrong, _ = check(GOOD.replace(before, after), NOW)
    assert len(wrong) == 1
    assert said in wrong[0]


@pytest.mark.parametrize(
    "contact",
    [
        "tel:+1-201-555-0123;ext=7",
        "mailto:security%2Buri%2Bencoded@example.com",
        "sip:lab@example.net",
        "HTTPS://a.example",
    ],
)
def test_whatever_is_a_uri_is_a_contact_but_the_web_is_https(contact: str) -> None:
    wrong, _ = check(GOOD.replace("mailto:lab@example.net", contact), NOW)
    assert bool(wrong) is contact.startswith("HTTPS"), wrong


def test_a_file_may_be_signed() -> None:
    head = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n"
    foot = "-----BEGIN PGP SIGNATURE-----\nVersion: 1\n\n[signature]\n-----END PGP SIGNATURE-----\n"
    wrong, lacking = check(head + GOOD.replace("# comment", "- # comment") + foot, NOW)
    assert wrong == []
    assert lacking == ["It is signed; whether the signature is good was not looked at."]
    wrong, _ = check(head + GOOD.replace("Contact: mailto:lab@example.net\r\ncontact", "x") + foot, NOW)
    assert "no Contact" in wrong[0]
    assert check(head + GOOD, NOW)[0]


def test_it_may_be_found_in_several_places() -> None:
    places = ["https://a.example/.well-known/probing.txt", "https://[2001:db8::1]/.well-known/probing.txt"]
    text = Identity(contact="lab@example.net", canonical=" ".join(places)).text(NOW)
    assert [line.removeprefix("Canonical: ") for line in text.splitlines() if line.startswith("Can")] == places


def test_what_should_be_there_is_said_and_is_no_fault() -> None:
    wrong, lacking = check("Contact: tel:+49-123\nExpires: 2029-01-01T00:00:00Z\n", NOW)
    assert wrong == []
    assert [each.split(":")[0] for each in lacking] == [
        "It is valid until 2029-01-01",
        "There is no Description",
        "There is no Canonical",
        "There is no Preferred-Languages",
    ]


def test_flags_stand_over_the_configuration_and_the_policy_lends_its_contact(command: Command, tmp_path: Path) -> None:
    (tmp_path / "irlstack.toml").write_text(
        '[policy]\ncontact = "scan@example.org"\n[identity]\ndescription = "We count."\nlanguages = "en"\n'
    )
    done = command("identity", "--languages", "de", "--expires", "2999-01-01")
    assert done.status == 0
    assert "Contact: mailto:scan@example.org\nExpires: 2999-01-01T00:00:00Z\nPreferred-Languages: de\n" in done.out
    assert "Description: We count.\n" in done.out
    assert "/.well-known/probing.txt" in done.err
    assert command("identity", "-o", "probing.txt").out == ""
    expires = datetime.fromisoformat((tmp_path / "probing.txt").read_text().split("Expires: ")[1].split()[0])
    assert timedelta(days=179) < expires - datetime.now(UTC) <= timedelta(days=180)
    assert command("plan", "10.0.0.0/16", "-p", "80").status == 0
    assert irl.Plan.load("plan.toml").contact == "scan@example.org"


def test_a_file_is_looked_at(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command("identity", "--contact", "https://example.org/contact", "-o", "probing.txt")
    done = command("identity", "--check", "probing.txt")
    assert (done.status, done.out) == (0, "")
    assert done.err.endswith("It is valid.\n")
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    assert command("identity", "--check", "bad.txt").status == 1
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"<html>")))
    done = command("identity", "--check", "-")
    assert done.status == 1
    assert "no Contact" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "needs somebody to write to"),
        (["--contact", "http://example.org"], "has to begin with https://"),
        (["--contact", "a@example.org", "--description", "two\nlines"], "one line"),
        (["--contact", "a@example.org", "--expires", "2020-01-01"], "expired"),
        (["--contact", "a@example.org", "--expires", "soon"], "no date"),
        (["--check", "probing.txt", "--contact", "a@example.org"], "leave the other options out"),
        (["--check", "absent"], "absent: No such file"),
    ],
)
def test_what_would_not_be_valid_is_refused(command: Command, arguments: list[str], said: str) -> None:
    done = command("identity", *arguments)
    assert done.status == 2
    assert done.out == ""
    assert said in " ".join(done.err.split())


def test_an_unknown_key_of_the_identity_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "irlstack.toml").write_text('[identity]\nname = "me"\n')
    done = command("identity", "--contact", "a@example.org")
    assert done.status == 2
    assert "no key of [identity] 'name'" in " ".join(done.err.split())
