"""RTVI's door: Pipecat's clients in a room, over a web socket with protobuf frames or by WebRTC.

    server = RTVIServer(kit)
    app = rtvi_app(server)        # to be mounted: ws://host/rtvi/?token=TOKEN, or POST /rtvi/api/offer

Text, app messages, functions that the client runs, what its page shows; and sound, where `RTVIOptions(voice=...)` names
a voice channel with an `RTVIBackend`. Needs the [rtvi] extra, for sound [voice], for WebRTC [webrtc].
"""

from roomkit.servers.rtvi.app import rtvi_app
from roomkit.servers.rtvi.client import Client
from roomkit.servers.rtvi.server import RTVIOptions, RTVIServer

__all__ = ["Client", "RTVIOptions", "RTVIServer", "rtvi_app"]
