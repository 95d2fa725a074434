// Makes the requests of standard input, with `fetch` or `http`, one after another; writes what came back.
"use strict";
const http = require("node:http");

async function withFetch(ask) {
  const body = ask.body === null ? undefined : Buffer.from(ask.body, "base64");
  const answer = await fetch(ask.url, { method: ask.method, headers: ask.fields, body, redirect: "manual" });
  const content = Buffer.from(await answer.arrayBuffer());
  return { status: answer.status, fields: [...answer.headers], body: content.toString("base64") };
}

const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function withHttp(ask) {
  return new Promise((resolve, reject) => {
    const request = http.request(ask.url, { method: ask.method, headers: ask.fields, agent }, (answer) => {
      const pieces = [];
      answer.on("data", (piece) => pieces.push(piece));
      answer.on("end", () => {
        const fields = [];
        for (let at = 0; at < answer.rawHeaders.length; at += 2) {
          fields.push([answer.rawHeaders[at], answer.rawHeaders[at + 1]]);
        }
        for (const [name, value] of Object.entries(answer.trailers)) fields.push([`trailer ${name}`, value]);
        resolve({ status: answer.statusCode, fields, body: Buffer.concat(pieces).toString("base64") });
      });
      answer.on("error", reject);
    });
    request.on("error", reject);
    request.end(ask.body === null ? undefined : Buffer.from(ask.body, "base64"));
  });
}

async function main() {
  let text = "";
  for await (const piece of process.stdin) text += piece;
  const answers = [];
  for (const ask of JSON.parse(text)) {
    answers.push(await (process.argv[2] === "fetch" ? withFetch(ask) : withHttp(ask)));
  }
  process.stdout.write(JSON.stringify(answers), () => process.exit(0));
}

main();
