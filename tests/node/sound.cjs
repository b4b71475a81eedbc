// Speaks with the door through Pipecat's own client: node sound.cjs URL TOKEN. The microphone and the loudspeaker are
// stubs: samples of the value 1 are speech. Prints what it saw as one line of JSON.
"use strict";
require("./page.cjs");

const { PipecatClient, RTVIEvent } = require("@pipecat-ai/client-js");
const { WebSocketTransport, ProtobufFrameSerializer } = require("@pipecat-ai/websocket-transport");

const FRAME = 256; // samples at 16 kHz, as the real media manager sends them
const loudspeaker = { samples: 0, loud: 0 };
const stub = {
  bufferBotAudio(pcm) {
    loudspeaker.samples += pcm.length;
    loudspeaker.loud += pcm.filter((one) => Math.abs(one) > 200).length;
  },
  setUserAudioCallback(callback) {
    this.callback = callback;
  },
  tracks: () => ({ local: {} }),
  isMicEnabled: true,
};
const media = new Proxy(stub, {
  get: (target, name) => (name in target ? target[name] : name === "then" ? undefined : async () => []),
});

// Speaks for `ms` and is silent then, at the pace of sound.
function speak(ms) {
  const began = Date.now();
  let sent = 0;
  const timer = setInterval(() => {
    const due = ((Date.now() - began) * 16) / FRAME;
    for (; sent < due; sent++) {
      const value = sent * FRAME < ms * 16 ? 1 : 0;
      stub.callback(new Int16Array(FRAME).fill(value).buffer);
    }
  }, 10);
  return () => clearInterval(timer);
}

async function main() {
  const [, , url, token] = process.argv;
  const seen = { events: [], transcripts: [], outputs: [] };
  const transport = new WebSocketTransport({ serializer: new ProtobufFrameSerializer(), mediaManager: media });
  const client = new PipecatClient({ transport, enableMic: true, enableCam: false });
  const over = new Promise((done) => client.on(RTVIEvent.BotStoppedSpeaking, done));
  for (const kind of ["UserStartedSpeaking", "UserStoppedSpeaking", "BotStartedSpeaking", "BotStoppedSpeaking"]) {
    client.on(RTVIEvent[kind], () => seen.events.push(kind));
  }
  client.on(RTVIEvent.UserTranscript, (data) => seen.transcripts.push(data));
  client.on(RTVIEvent.BotOutput, (data) => seen.outputs.push(data.text));
  await client.connect({ wsUrl: url, token });
  const quiet = speak(500);
  await over;
  quiet();
  await client.disconnect();
  console.log(JSON.stringify({ ...seen, ...loudspeaker }));
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
