"""Calls about browser sessions: sign in with a token, sign out."""

from gateway.admin.call import Call, Reply
from gateway.admin.schemas import YouView
from gateway.admin.sessions import closing_field, opening_field


async def begin(call: Call) -> Reply:
    """Give the browser a cookie that stands for the token it came with."""
    value = call.sessions.open(call.actor.token_id)
    secure = call.fields.get("origin", "").startswith("https:")
    you = YouView(name=call.actor.name, role=call.actor.role)
    return Reply(value=you, fields=(opening_field(value, secure=secure),))


async def end(call: Call) -> Reply:
    """Take the cookie away, and let it open nothing any more."""
    call.sessions.close(call.fields)
    return Reply(fields=(closing_field(),))
