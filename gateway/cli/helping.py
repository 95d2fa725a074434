"""How the command line explains itself: commands in groups, examples, and once what all of them share."""

from typing import Final

import click

SECTIONS: Final = {
    "Release": ("deploy", "promote", "pause", "resume", "rollback", "undo", "complete", "rehearse"),
    "Look": ("get", "top", "status", "why", "decisions", "history", "events", "logs", "whatif", "versions"),
    "Correct": ("edit", "rm", "set-weight", "drain", "plan", "apply", "export"),
    "Govern": ("approvals", "approve", "freeze", "token", "audit"),
    "Run": (
        "serve",
        "check",
        "upgrade",
        "healthcheck",
        "backup",
        "restore",
        "store",
        "nodes",
        "demo",
        "completion",
    ),
}
SHORT: Final = {
    "deploy": "Release a version: wait until it is healthy, move the traffic.",
    "promote": "Take the open rollout to its next step, or to 100 %.",
    "pause": "Hold the open rollout where it is.",
    "resume": "Let a paused rollout go on.",
    "rollback": "Move all traffic back to the old version, now.",
    "undo": "Take back the last release, open or over.",
    "complete": "End a rollout that is at 100 %.",
    "rehearse": "Is a service safe to deploy without downtime? Try it.",
    "get": "Services, versions, shares, rates, errors, the open rollout.",
    "top": "The busiest versions of all services, live.",
    "status": "Where the newest rollout stands; exit code 1 if it failed.",
    "why": "The newest rollout as a story, with numbers.",
    "decisions": "Every decision of a rollout, as a table.",
    "history": "A service's rollouts, newest first.",
    "events": "What happened, oldest first.",
    "logs": "Access log and events, followed.",
    "whatif": "Replay earlier rollouts under other settings.",
    "versions": "List versions.",
    "edit": "Change a version's url, or a service's policies.",
    "rm": "Forget a version, or a service.",
    "set-weight": "Give a version a weight by hand.",
    "drain": "Take a version out; what runs may finish.",
    "plan": "What `apply` would change; exit code 3 if anything.",
    "apply": "Make services and versions what a file says.",
    "export": "Print services and versions as such a file.",
    "approvals": "What waits for a second person.",
    "approve": "Confirm, as the second person, what somebody asked for.",
    "freeze": "Refuse starts and hold advances, never rollbacks.",
    "token": "Make, list, rotate and revoke tokens.",
    "audit": "Who changed what, allowed or refused.",
    "backup": "Copy the running gateway's store to a file.",
    "restore": "Put a backup in the store's place, or only look it through.",
    "store": "Copy the whole store into another database.",
    "nodes": "The gateways that share the store; who is in charge.",
    "serve": "Run the gateway until SIGTERM.",
    "check": "Check a configuration file.",
    "upgrade": "Replace the running gateway by the release on disk.",
    "healthcheck": "Exit code 0 if the gateway is ready.",
    "demo": "A good and a bad release, played on this machine.",
    "completion": "Completion for bash, zsh or fish.",
}
EXAMPLES: Final = {
    "deploy": (
        "gateway deploy shop v1.0 --url http://127.0.0.1:7200 --route /shop",
        "gateway deploy shop v1.1 --url http://127.0.0.1:7201 --steps 10,50,95,100 --step-interval 5m --wait",
        "gateway deploy shop v1.2 --url http://127.0.0.1:7202 --immediate --wait && systemctl stop shop-v1.1",
    ),
    "get": ("gateway get", "gateway get shop -w", "gateway get -o json | jq '.[].name'"),
    "top": ("gateway top --sort errors",),
    "why": ("gateway why shop",),
    "promote": ("gateway promote shop", "gateway promote shop --full"),
    "rollback": ("gateway rollback shop --reason 'support called'",),
    "undo": ("gateway undo shop",),
    "edit": (
        "gateway edit shop v1.1 --url http://127.0.0.1:7300",
        "gateway edit shop --set health.path=/up --set retry.attempts=2",
    ),
    "rm": ("gateway rm shop v1.1", "gateway rm shop --yes"),
    "set-weight": ("gateway set-weight shop v1.1 20",),
    "drain": ("gateway drain shop v1.0 --wait && systemctl stop shop-v1.0",),
    "events": ("gateway events shop -n 20", "gateway events -f"),
    "logs": ("gateway logs -f shop --status 5xx", "gateway logs --events"),
    "whatif": ("gateway whatif shop --error-threshold 1",),
    "token": ("gateway token create ci --role deployer", "gateway token revoke ci"),
    "approve": ("gateway approve 3f2a91c0", "gateway approve 3f2a91c0 --deny"),
    "freeze": ("gateway freeze on --reason 'launch day'", "gateway freeze off"),
    "plan": ("gateway plan -f services.toml",),
    "apply": ("gateway apply -f services.toml", "gateway apply -f services.toml --prune --yes"),
    "export": ("gateway export > services.toml",),
    "rehearse": (
        "gateway rehearse shop --url http://127.0.0.1:7300",
        "gateway rehearse shop --url http://127.0.0.1:7300 --stop-command 'systemctl stop shop-test'",
    ),
    "completion": ("gateway completion bash > ~/.local/share/bash-completion/completions/gateway",),
    "audit": ("gateway audit --actor ci", "gateway audit verify"),
    "backup": ("gateway backup /var/backups/gateway.db",),
    "restore": ("gateway restore --check /var/backups/gateway.db", "gateway restore /var/backups/gateway.db"),
    "store": ("gateway store copy sqlite:///var/gateway.db postgresql://gateway@db/gateway",),
    "nodes": ("gateway nodes", "gateway nodes rm gw-2"),
    "serve": ("gateway serve --config gateway.toml", "gateway serve --listen 127.0.0.1:8080 --workers 2"),
    "upgrade": ("pip install -U gateway && gateway upgrade",),
}
CONNECTION: Final = (
    (
        "--admin-url URL[,URL…]",
        "The admin API (GATEWAY_ADMIN_URL), of several gateways over one store each; default: as the "
        "configuration says.",
    ),
    ("--token TOKEN", "Bearer token (GATEWAY_TOKEN); default: the bootstrap token beside the store."),
    (
        "--config FILE",
        "Where address and store are looked up; default: config/gateway.toml, then /etc/gateway.",
    ),
    (
        "GATEWAY_ADMIN_CA, …_CERTIFICATE, …_KEY",
        "For an https admin API: files of its CA, and of a client certificate where it wants one.",
    ),
    (
        "-o, --output table|json",
        "What results look like (GATEWAY_OUTPUT). A refusal is {error, exitCode, problem} then.",
    ),
)
CODES: Final = (
    ("0", "done"),
    ("1", "failed, or rolled back"),
    ("2", "wrong usage, or a wrong key of a file"),
    ("3", "timed out; plan, apply --dry-run: there are changes"),
    ("4", "denied: no token, a wrong one, or one that may not; or a second person has to confirm it"),
)


ELSEWHERE: Final = {
    "ls": "get",
    "list": "get",
    "ps": "get",
    "details": "get",
    "remove": "rm",
    "delete": "rm",
    "abort": "rollback",
    "release": "deploy",
    "run": "serve",
    "start": "serve",
    "reload": "upgrade",
    "validate": "check",
}
"""What other tools call it: close spellings would lead to something else."""


class Root(click.Group):
    """The root: lists its commands by what one wants to do."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is meant. Raises UsageError that names the one that may be."""
        known = ELSEWHERE.get(args[0])
        if known is not None and args[0] not in self.commands:
            short = self.commands[known].get_short_help_str(70).rstrip(".")
            ctx.fail(f"No such command {args[0]!r}. Did you mean `gateway {known}`: {short}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, by section, and what all clients of the admin API take."""
        listed: set[str] = set()
        for title, names in SECTIONS.items():
            rows = [
                (name, self.commands[name].get_short_help_str(70)) for name in names if name in self.commands
            ]
            listed.update(names)
            with formatter.section(title):
                formatter.write_dl(rows)
        others = [name for name in self.commands if name not in listed]
        if others:
            with formatter.section("Further"):
                formatter.write_dl(
                    [(name, self.commands[name].get_short_help_str(70)) for name in sorted(others)]
                )
        with formatter.section("Every command that asks the admin API takes, before or behind its name"):
            formatter.write_dl(CONNECTION)
        with formatter.section("Exit codes"):
            formatter.write_dl(CODES)


def add_examples(group: click.Group) -> None:
    """Give each command of a group its examples, and say where the shared options are explained."""
    for name, command in group.commands.items():
        command.short_help = SHORT.get(name)
        lines = [f"  {example}" for example in EXAMPLES.get(name, ())]
        examples = "\n".join(["\b", "Examples:", *lines]) if lines else ""
        shared = "Connection options and environment variables: gateway --help"
        command.epilog = "\n\n".join(part for part in (examples, shared) if part)
        if isinstance(command, click.Group):
            for each in command.commands.values():
                each.epilog = shared
