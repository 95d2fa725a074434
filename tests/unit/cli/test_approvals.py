"""What a second person has to confirm says so, and what to type; then it is confirmed by a few letters."""

from typing import Any

from gateway.cli.exits import DENIED, FAILED, OK

ID = "3f2a91c0-0000-4000-8000-000000000001"


def approval(**more: Any) -> dict[str, Any]:
    return {
        "id": ID,
        "what": "undo: all traffic of auth to v1",
        "askedBy": "ann",
        "askedOwner": "ann",
        "createdAt": "2026-01-02T03:04:05Z",
        "expiresAt": "2026-01-02T03:19:05Z",
        "state": "pending",
        "decidedBy": None,
        "outcome": "",
        **more,
    }


def test_a_call_that_waits_names_the_next_command(api: Any, cli: Any, capsys: Any) -> None:
    kept = approval(approvalId=ID, next=f"gateway approve {ID}")
    api.answers["POST services/auth/undo"] = (202, kept)
    assert cli("undo", "auth") == DENIED
    said = capsys.readouterr().err
    assert f"gateway approve {ID}" in said
    assert "somebody else than ann" in said
    assert "03:19 UTC" in said


def test_an_approval_is_found_by_how_its_id_begins(api: Any, cli: Any, made: Any, capsys: Any) -> None:
    api.answers["GET approvals"] = made.page(approval(), approval(id="7" + ID[1:]))
    api.answers[f"POST approvals/{ID}"] = approval(state="carried_out", decidedBy="bob")
    assert cli("approve", "3f2a") == OK
    assert "carried out: undo" in capsys.readouterr().out
    api.answers["GET approvals"] = made.page(approval(), approval(id="7" + ID[1:]))
    assert cli("approve", "9") == FAILED
    assert "0 approvals" in capsys.readouterr().err


def test_what_waits_is_a_table_and_what_is_over_is_hidden(api: Any, cli: Any, made: Any, capsys: Any) -> None:
    api.answers["GET approvals"] = made.page(approval(), approval(id="7" + ID[1:], state="expired"))
    assert cli("approvals") == OK
    shown = capsys.readouterr().out
    assert ID[:8] in shown
    assert "expired" not in shown
