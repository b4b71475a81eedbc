// Talks to the door with Pipecat's own client: node rtvi.cjs URL TOKEN. Prints what it saw as one line of JSON.
"use strict";
require("./page.cjs");
const { PipecatClient, RTVIEvent } = require("@pipecat-ai/client-js");
const { WebSocketTransport, ProtobufFrameSerializer } = require("@pipecat-ai/websocket-transport");

const silent = new Proxy(
  { _userAudioCallback: null },
  {
    get(target, name) {
      if (name in target) return target[name];
      if (name === "then") return undefined;
      if (name === "tracks") return () => ({ local: {} });
      return async () => [];
    },
    set(target, name, value) {
      target[name] = value;
      return true;
    },
  },
);

async function main() {
  const [, , url, token] = process.argv;
  const seen = { text: "", called: null };
  const transport = new WebSocketTransport({ serializer: new ProtobufFrameSerializer(), mediaManager: silent });
  const client = new PipecatClient({ transport, enableMic: false, enableCam: false });
  let stopped = () => {};
  client.on(RTVIEvent.BotReady, (data) => (seen.ready = data.version));
  client.on(RTVIEvent.BotLlmText, (data) => (seen.text += data.text));
  client.on(RTVIEvent.BotLlmStopped, () => stopped());
  client.registerFunctionCallHandler("where", async (params) => {
    seen.called = { functionName: params.functionName, arguments: params.arguments };
    return { city: "Graz" };
  });
  const reply = () => new Promise((done) => (stopped = done));
  await client.connect({ wsUrl: url, token });
  let over = reply();
  await client.sendText("Hello?");
  await over;
  seen.answer = await client.sendClientRequest("ask", { a: 1 });
  seen.answer = seen.answer.d ?? seen.answer;
  try {
    await client.sendClientRequest("refuse", {});
  } catch (error) {
    seen.refused = true;
  }
  over = reply();
  await client.sendText("Where am I?");
  await over;
  await client.disconnect();
  console.log(JSON.stringify(seen));
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
