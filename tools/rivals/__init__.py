"""The policies of other systems as plans, so that policies are compared on equal machinery."""
