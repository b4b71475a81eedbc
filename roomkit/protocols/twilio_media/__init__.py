"""Twilio Media Streams, without a socket: what its text frames say, both ways."""

from roomkit.protocols.twilio_media.codec import Digit, Event, Mark, Media, Start, Stop, TwilioMedia

__all__ = ["Digit", "Event", "Mark", "Media", "Start", "Stop", "TwilioMedia"]
