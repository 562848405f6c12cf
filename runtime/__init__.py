"""What a serving process needs: sessions, slots, plans, bundles, engines."""
