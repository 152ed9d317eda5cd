// A subscriber and publisher of mqtt.js, as in a browser: node mqtt_js.js MODULE URL CA PROTOCOL_VERSION
const fs = require("fs");
const [module_, url, ca, version] = process.argv.slice(2);
const client = require(module_).connect(url, {
  ca: ca ? fs.readFileSync(ca) : undefined,
  protocolVersion: Number(version),
  reconnectPeriod: 0,
  connectTimeout: 10000,
});
const body = Buffer.alloc(100000, "tide ");
let got = 0;
client.on("error", (error) => {
  console.error(String(error));
  process.exit(1);
});
client.on("connect", () => {
  client.subscribe("js/#", { qos: 1 }, () => {
    for (let n = 0; n < 50; n++) client.publish("js/" + n, body, { qos: 1 });
  });
});
client.on("message", (topic, received) => {
  if (!received.equals(body)) process.exit(2);
  if (++got === 50) client.end(false, {}, () => console.log("got " + got));
});
