"""Mail servers without a vendor: SMTP out; in by IMAP, by LMTP, or as signed posts of whole letters."""
