// A page with Pipecat's own client and both of its transports of ours; proofs/rtvi.py drives it.
import { PipecatClient, RTVIEvent } from "@pipecat-ai/client-js";
import { SmallWebRTCTransport, WavMediaManager as PeerMedia } from "@pipecat-ai/small-webrtc-transport";
import { ProtobufFrameSerializer, WavMediaManager, WebSocketTransport } from "@pipecat-ai/websocket-transport";

const seen = (window.seen = { events: [], texts: {}, loudness: [] });
const TOLD = [
  RTVIEvent.BotReady,
  RTVIEvent.UserStartedSpeaking,
  RTVIEvent.UserStoppedSpeaking,
  RTVIEvent.UserTranscript,
  RTVIEvent.BotStartedSpeaking,
  RTVIEvent.BotStoppedSpeaking,
  RTVIEvent.BotLlmStarted,
  RTVIEvent.BotLlmText,
  RTVIEvent.BotTtsStarted,
  RTVIEvent.BotTtsText,
  RTVIEvent.BotTtsStopped,
  RTVIEvent.BotOutput,
  RTVIEvent.Metrics,
  RTVIEvent.BotDisconnected,
  RTVIEvent.Error,
];

// What really sounds, every 10 ms: of a worklet that plays, and of a track that comes in.
function listen(context, source) {
  const ear = new AnalyserNode(context, { fftSize: 256 });
  const wave = new Float32Array(256);
  connect.call(source, ear);
  setInterval(() => {
    ear.getFloatTimeDomainData(wave);
    seen.loudness.push([performance.now(), Math.sqrt(wave.reduce((sum, one) => sum + one * one, 0) / 256)]);
  }, 10);
}
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...more) {
  const playing = this instanceof AudioWorkletNode && target instanceof AudioDestinationNode;
  if (playing && target.context.sampleRate === 24000) listen(target.context, this);
  return connect.call(this, target, ...more);
};

window.join = async (how, address, token) => {
  const transport =
    how === "websocket"
      ? new WebSocketTransport({
          serializer: new ProtobufFrameSerializer(),
          mediaManager: new WavMediaManager(512, 16000),
        })
      : new SmallWebRTCTransport({ mediaManager: new PeerMedia() });
  const client = (window.client = new PipecatClient({ transport, enableMic: true, enableCam: false }));
  for (const kind of TOLD) {
    client.on(kind, (data) => {
      seen.events.push([performance.now(), kind]);
      (seen.texts[kind] ??= []).push(data);
    });
  }
  client.on(RTVIEvent.TrackStarted, (track, who) => {
    if (how === "websocket" || who?.local || track.kind !== "audio" || window.sound) return;
    const sound = (window.sound = new Audio()); // Chromium decodes what something plays
    sound.srcObject = new MediaStream([track]);
    void sound.play();
    const context = new AudioContext();
    listen(context, context.createMediaStreamSource(sound.srcObject));
  });
  const headers = new Headers({ authorization: `Bearer ${token}` });
  const ready =
    how === "websocket"
      ? await client.connect({ wsUrl: address, token })
      : await client.startBotAndConnect({ endpoint: address, headers, requestData: { transport: "webrtc" } });
  return ready.version;
};

// When somebody began to speak after the first answer had begun to be heard.
window.over = () => {
  const answered = seen.events.find(([, kind]) => kind === "botStartedSpeaking")?.[0] ?? Infinity;
  return seen.events.find(([at, kind]) => kind === "userStartedSpeaking" && at > answered);
};
// For how many seconds it still sounded from then on: until it was quiet for 0.4 s, and known to have stopped.
window.late = async () => {
  await new Promise((done) => setTimeout(done, 2500));
  const [started] = window.over();
  const [stopped] = seen.events.find(([at, kind]) => at > started - 500 && kind === "botStoppedSpeaking") ?? [Infinity];
  let last = started;
  for (const [at, loud] of seen.loudness) {
    if (at < started || loud <= 0.01) continue;
    if (at - last > 400) break;
    last = at;
  }
  return (Math.max(last, stopped) - started) / 1000;
};
window.leave = () => window.client.disconnect();
