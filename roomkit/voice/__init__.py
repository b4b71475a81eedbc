"""Live audio conversations: the pure turn machine, the pipeline, playout, and the session that joins them."""
