// TGP/1 from JavaScript, with JSON headers: publish with confirms, or work with acknowledgements.
//
//     npm install zeromq@6
//     node jobs.js publish [COUNT]        node jobs.js work [COUNT]
//
// The gateway's ROUTER address is taken from TIDEGATE_TGP (tcp://127.0.0.1:5570). docs/tgp.md explains every command.
"use strict";

const zmq = require(process.env.ZEROMQ_JS || "zeromq");

class Gateway {
  constructor(address, client) {
    this.socket = new zmq.Dealer({ linger: 1000 });
    this.socket.connect(address);
    this.options = { client, heartbeat_ms: 2000 };
    this.seq = 0;
    this.asked = 0;
    this.ready = false;
    this.unconfirmed = new Map(); // seq -> [header, body, resolve, reject], in order
    this.questions = new Map(); // r -> [header, resolve, reject]
    this.consumers = new Map(); // tag -> [queue, credit, take]
    this.sent = Promise.resolve();
    this.greet();
    this.listening = this.listen();
    // A gateway that was started again knows nobody: it answers a PING with ERROR 401, and everything goes on from there.
    this.beat = setInterval(() => this.say({ cmd: "PING" }), this.options.heartbeat_ms);
  }

  say(header, body) {
    const frames = body === undefined ? [JSON.stringify(header)] : [JSON.stringify(header), body];
    this.sent = this.sent.then(() => this.socket.send(frames)).catch(() => {}); // one after the other, as the socket wants it
    return this.sent;
  }

  greet() {
    this.ready = false;
    this.say({ cmd: "HELLO", r: 0, version_max: 1, options: this.options });
  }

  // Resolves when the message is on disk. `body` is a string or a Buffer.
  publish(exchange, routing_key, body) {
    return new Promise((resolve, reject) => {
      this.waiting = (this.waiting || []).concat([[{ cmd: "PUBLISH", exchange, routing_key }, body, resolve, reject]]);
      if (this.ready) this.number();
    });
  }

  // Numbers go on from where the gateway says that this client ended the last time, so they wait for READY.
  number() {
    for (const [header, body, resolve, reject] of this.waiting || []) {
      header.seq = ++this.seq;
      this.unconfirmed.set(header.seq, [header, body, resolve, reject]);
      this.say(header, body);
    }
    this.waiting = [];
  }

  ask(header) {
    return new Promise((resolve, reject) => {
      header.r = ++this.asked;
      this.questions.set(header.r, [header, resolve, reject]);
      if (this.ready) this.say(header);
    });
  }

  // Calls `take(body, delivery)` for each message, and acknowledges it when that is done.
  consume(queue, credit, take) {
    this.consumers.set(`c${this.consumers.size}`, [queue, credit, take]);
    return this.ask({ cmd: "CONSUME", queue, tag: `c${this.consumers.size - 1}`, credit });
  }

  async listen() {
    for await (const [header, body] of this.socket) {
      const said = JSON.parse(header.toString());
      const hear = this[said.cmd];
      if (hear) hear.call(this, said, body);
    }
  }

  READY({ options }) {
    this.ready = true;
    this.options.session = options.session;
    this.CONFIRM({ seq: options.last_seq, multiple: true, status: 0 }, options.refused);
    this.seq = Math.max(this.seq, options.last_seq);
    for (const [header, body] of this.unconfirmed.values()) this.say(header, body);
    const asked = [...this.questions.values()].map(([header]) => header);
    asked.forEach((header) => this.say(header));
    for (const [tag, [queue, credit]] of this.consumers)
      if (!asked.some((header) => header.tag === tag)) this.ask({ cmd: "CONSUME", queue, tag, credit });
    this.number();
  }

  CONFIRM({ seq, multiple, status }, refused = []) {
    for (const [number, [, , resolve, reject]] of this.unconfirmed) {
      if (multiple ? number > seq : number !== seq) continue;
      const run = refused.find(([first, last]) => first <= number && number <= last);
      this.unconfirmed.delete(number);
      if (run || status) reject(new Error(`not stored: ${run ? run[2] : status}`));
      else resolve(number);
    }
  }

  async DELIVER({ tag, delivery, redelivered }, body) {
    await this.consumers.get(tag)[2](body, redelivered);
    await this.say({ cmd: "ACK", tag, delivery }); // one of an earlier connection is refused (404), and comes again
  }

  OK({ r, result }) { this.answer(r, 1, result); }

  ERROR({ r, code, text }) {
    if (code === 401) this.greet();
    else if (r) this.answer(r, 2, new Error(`${code}: ${text}`));
    else console.error(`the gateway says ${code}: ${text}`);
  }

  answer(r, which, value) {
    const question = this.questions.get(r);
    if (this.questions.delete(r)) question[which](value);
  }

  PING({ token }) { this.say({ cmd: "PONG", token }); }

  BYE() { this.greet(); }

  async close() {
    clearInterval(this.beat);
    await this.say({ cmd: "BYE", code: 200, text: "done" });
    this.socket.close();
  }
}

async function main([what, count = "5"]) {
  const gateway = new Gateway(process.env.TIDEGATE_TGP || "tcp://127.0.0.1:5570", `jobs-js-${what}`);
  await gateway.ask({ cmd: "DECLARE", kind: "queue", name: "jobs" });
  if (what === "publish") {
    const confirms = []; // of those under way: a gateway refuses more than so many (10,000)
    for (let n = 1; n <= +count; n++)
      if (confirms.push(gateway.publish("", "jobs", `job ${n}`)) >= 1000) console.log(`confirmed ${await confirms.shift()}`);
    for (const confirm of confirms) console.log(`confirmed ${await confirm}`);
  } else {
    let done = 0;
    await new Promise((resolve, reject) =>
      gateway.consume("jobs", 10, (body) => { console.log(`done ${body}`); if (++done >= +count) setTimeout(resolve, 100); })
        .then(() => console.log("waiting for jobs"), reject));
  }
  await gateway.close();
}

main(process.argv.slice(2));
