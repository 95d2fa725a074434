"""Calls about browser sessions: sign in with a token, sign out."""

from gateway.admin.call import Call, Reply
from gateway.admin.schemas import SignInLinkView, YouView
from gateway.admin.sessions import LINK_LIFE_S, SIGN_IN, closing_field, opening_field


async def begin(call: Call) -> Reply:
    """Give the browser a cookie that stands for the token it came with."""
    value = call.sessions.open(call.actor.token_id)
    secure = call.fields.get("origin", "").startswith("https:")
    you = YouView(name=call.actor.name, role=call.actor.role)
    return Reply(value=you, fields=(opening_field(value, secure=secure),))


async def link(call: Call) -> Reply:
    """Make a link that signs one browser in, once, as the token it is asked for with."""
    code = call.sessions.offer(call.actor.token_id)
    return Reply(value=SignInLinkView(path=f"{SIGN_IN}?code={code}", expires_in=LINK_LIFE_S))


async def end(call: Call) -> Reply:
    """Take the cookie away, and let it open nothing any more."""
    call.sessions.close(call.fields)
    return Reply(fields=(closing_field(),))
