// The shapes of docs/reference/room-socket.md and rest.md, as far as the pages use them.
export type Content = { type: string; text?: string; [field: string]: any };
export type Source = { channel_id: string; channel_type: string; direction?: string; participant_id?: string | null; [field: string]: any };
export type RoomEvent = {
  id: string; room_id: string; index: number; type: string; status: string; created_at: string; content: Content; source: Source;
  visibility?: string; blocked_by?: string | null; blocked_reason?: string | null; parent_event_id?: string | null;
  addressed_to?: string[] | null; metadata: Record<string, any>;
};
export type Floor = { mode: string; holder: string | null; generation?: number; lease_until?: string | null; lease_seconds?: number };
export type Attention = { reason: string; requested_by: string; since: string; priority?: number };
export type Room = {
  id: string; status: string; floor: Floor; waiting: boolean; language?: string; latest_index: number; attention?: Attention | null;
  metadata?: Record<string, any>; external_id?: string | null; last_activity_at?: string | null; created_at?: string; updated_at?: string;
  channels?: string[]; people?: string[]; last?: string | null; approvals?: { id: string; name: string; since: string }[]; approval?: boolean;
};
export type Participant = { id: string; display_name: string | null; role: string; status: string; address?: string | null; [field: string]: any };
export type Binding = {
  channel_id: string; channel_type: string; category: string; access: string; muted: boolean; output_muted?: boolean; visibility: string;
  participant_id?: string | null; metadata: Record<string, any>; [field: string]: any;
};
export type Viewer = { id: string; display_name: string | null; role: string };
export type Principal = { id: string; role: string; display_name: string | null; room_id: string | null };
export type OpenStream = { stream_id: string; source: Source; parent_event_id?: string | null; text: string; offset: number };
export type Entered = {
  room_id: string; epoch: string; index: number; room: Room; participants: Participant[]; events: RoomEvent[]; more: boolean;
  streams: OpenStream[]; bindings?: Binding[]; viewers?: Viewer[];
};
export type Frame =
  | { type: "welcome"; principal: Principal; heartbeat_s: number; expires_at: number | null; limits: Record<string, number> }
  | ({ type: "snapshot" } & Entered)
  | ({ type: "resumed" } & Entered)
  | { type: "resync_required"; room_id: string; reason: string }
  | { type: "event"; index: number; prev: number; event: RoomEvent }
  | { type: "stream_start"; room_id: string; stream_id: string; source: Source; parent_event_id?: string | null }
  | { type: "stream_chunk"; room_id: string; stream_id: string; offset: number; delta: string }
  | { type: "stream_end"; room_id: string; stream_id: string; index: number; prev: number; event: RoomEvent }
  | { type: "stream_error"; room_id: string; stream_id: string; error: string }
  | { type: "ack"; client_id: string; index: number; event_id: string; duplicate: boolean }
  | { type: "nack"; client_id: string; code: string; message: string; retry_after?: number | null }
  | { type: "ephemeral"; room_id: string; kind: string; sender: string; data: Record<string, any>; at?: number }
  | { type: "room"; room: Room }
  | { type: "rooms"; rooms: Room[] }
  | { type: "history"; room_id: string; events: RoomEvent[]; more: boolean }
  | { type: "error"; code: string; message: string; ref: string | null; retry_after?: number | null }
  | { type: "pong"; t?: unknown };
export type Stream = { id: string; source: Source; text: string; length: number; early: { offset: number; delta: string }[] };
export type Pending = {
  client_id: string; content: Content; state: "sending" | "sent" | "failed"; at: number; error?: string | null; event_id?: string;
};
export type Sign = { kind: string; sender: string; data: Record<string, any>; at: number };
export type RoomState = {
  room: Room | null; participants: Participant[]; bindings: Binding[]; viewers: Viewer[]; epoch: string | null; position: number;
  more: boolean; events: RoomEvent[]; byId: Record<string, RoomEvent>; streams: Record<string, Stream>; outbox: Pending[];
  signs: Record<string, Sign>; gap: boolean; ready: boolean;
};
export type Shown = { event: RoomEvent; content: Content; edited: boolean; deleted: boolean; reactions: Record<string, string[]> };
export type Link = "connecting" | "live" | "lost" | "back" | "unauthorized" | "refused" | "stopped";
export type Delivery = {
  room_id: string; index: number; event_id: string; channel_id: string; state: string; reason?: string | null; attempts: number;
  maybe_duplicate?: boolean; updated_at?: string | null;
};
