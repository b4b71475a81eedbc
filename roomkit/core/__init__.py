"""The room machine: one actor per room, ordered lanes around it."""
