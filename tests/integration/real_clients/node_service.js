// A service on node's own http module: it shows the bytes of the target and every field as they came.
"use strict";
const http = require("node:http");
const crypto = require("node:crypto");

const ADDED = /^(x-forwarded-.*|forwarded|x-request-id|traceparent|cdn-loop|connection|keep-alive)$/i;

function shown(raw) {
  const pairs = [];
  for (let at = 0; at < raw.length; at += 2) if (!ADDED.test(raw[at])) pairs.push([raw[at].toLowerCase(), raw[at + 1]]);
  return pairs.sort();
}

function echo(request, response) {
  const digest = crypto.createHash("sha256");
  let size = 0;
  request.on("data", (piece) => { size += piece.length; digest.update(piece); });
  request.on("end", () => {
    const said = {
      method: request.method, url: request.url, fields: shown(request.rawHeaders),
      trailers: request.rawTrailers, size, digest: digest.digest("hex"),
    };
    response.setHeader("Content-Type", "application/json");
    response.setHeader("X-Twice", ["one", "two"]);
    response.end(JSON.stringify(said));
  });
}

function stream(response) {
  response.writeHead(200, { "Content-Type": "text/plain", Trailer: "X-Sum" });
  for (let number = 0; number < 50; number += 1) response.write(`line ${number}\n`);
  response.addTrailers({ "X-Sum": "50" });
  response.end();
}

const server = http.createServer((request, response) => {
  if (request.url.startsWith("/node/stream")) stream(response);
  else if (request.url.startsWith("/node/upgrade")) {
    response.writeHead(426, { Upgrade: "echo", Connection: "upgrade" });
    response.end();
  } else if (request.url.startsWith("/node/page")) {
    response.setHeader("Content-Type", "text/html");
    response.end("<!doctype html><title>page</title>");
  } else echo(request, response);
});
// As `docker exec` does it: what follows the request is another protocol, both ways.
server.on("upgrade", (request, socket, head) => {
  socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
  if (head.length) socket.write(head);
  socket.pipe(socket);
});
server.listen(Number(process.argv[2]), "127.0.0.1");
